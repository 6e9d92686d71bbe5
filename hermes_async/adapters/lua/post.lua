-- Log an event of a session itself; returns its seq.
local maxlen, session, inbox, id, type_, task, agent, attempt, trace, data = unpack(ARGV)
return log(session, maxlen, inbox, id, type_, task, agent, attempt, trace, data)
