"""`mdsens flow`: train a flow on molecular dynamics, see how good it is, draw from it, run it as a potential."""
