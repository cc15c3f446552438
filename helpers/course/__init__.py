"""What make calls: notebooks built, run, reported and held to the rules of the house."""
