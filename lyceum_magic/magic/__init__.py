"""The notebook's face: `%%lyceum` and `%lyceum`."""
