"""Applications that the engine is measured with, in the styles that wssup offers."""
