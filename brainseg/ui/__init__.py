"""What people see: `state` and `wire` know no framework, the other modules are one face each."""
