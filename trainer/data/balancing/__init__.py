"""Which rows an epoch draws, and the class weights."""
