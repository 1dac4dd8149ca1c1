"""Choose the rows that an epoch sees, and compute the class weights."""
