"""The built-in conversations and the configuration of the demo, as package data (`coala_data`)."""
