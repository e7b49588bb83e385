"""`amk bench`: what a step costs, whether it is right, and what others need for the same, in one run."""
