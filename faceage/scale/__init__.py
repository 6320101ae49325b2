"""Large folders: shards, their output files, and the engines that process them."""
