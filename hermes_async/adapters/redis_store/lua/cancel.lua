-- Ask a task, and what is below it, to stop; returns {tasks that run, tasks that ended before they began, READY}.
local asked, data, below, due = unpack(ARGV, 5)
local running, ended = cascade({asked}, below == '1', data, due)
return {running, ended, READY}
