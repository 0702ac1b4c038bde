"""`mdsens flow`: train a flow on molecular dynamics, measure it, draw from it, run it as a potential."""
