"""Many patients: a map over them, by processes or through Ray, and a folder of what it finds."""
