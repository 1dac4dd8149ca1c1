"""Train, validation and test: stratified, by group, by time, or as given."""
