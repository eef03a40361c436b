"""What people see: `state` and `payload` know no framework, the other modules are one face each."""
