"""Small stand-ins for data sets of the hub, for tests and rehearsals."""
