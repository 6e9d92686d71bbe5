-- Log an event of a session itself, once; returns its seq.
local session, inbox, most, id, type_, task, agent, attempt, trace, data = unpack(ARGV, 5)
local recent = key('recent', session)
local seq = known(recent, id)
if seq then return seq end
seq = log(session, inbox, id, type_, task, agent, attempt, trace, data)
know(recent, id, seq, most)
redis.call('ZADD', key('sessions'), 'NX', STAMP, session) -- who only talks is looked at all the same
return seq
