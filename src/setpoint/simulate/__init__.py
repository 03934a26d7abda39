"""A workload through the step loop on a virtual clock."""
