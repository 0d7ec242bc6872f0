"""Groups that sleep, and the beats by which nodes answer for those that sleep under them."""
