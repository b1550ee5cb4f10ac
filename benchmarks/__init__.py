"""What wssup costs and how long it takes, measured with real processes."""
