"""Where a step's time goes, and the engines that ours is compared with."""
