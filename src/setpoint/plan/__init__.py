"""From a requirement to hardware and a serving configuration: candidates, their search by simulation, answers, exports."""
