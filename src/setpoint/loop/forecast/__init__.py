"""What a serving configuration would show for a requirement on this machine, by simulation, and how sure that is."""
