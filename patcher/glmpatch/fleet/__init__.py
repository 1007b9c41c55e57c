"""Many machines: what reaches them as a package, or over a cluster."""
