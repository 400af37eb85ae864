"""HTTP: requests in, typed values or errors out; transport, sign-in, endpoints, event stream."""
