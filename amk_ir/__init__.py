"""Ground floor: index expressions, regions, shared attributes, targets and errors. Knows no dialect."""
