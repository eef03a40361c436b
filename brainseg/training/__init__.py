"""Everything that makes weights; the app never imports it."""
