"""What travels -> the API -> an event stream: transport, sign-in, endpoints, following a stream."""
