-- Log an event of a session itself, once; returns its seq.
local session, inbox, id, type_, task, agent, attempt, trace, data = unpack(ARGV, 5)
local last = redis.call('HMGET', key('session', session), 'posted', 'posted_seq')
if last[1] == id then return tonumber(last[2]) end
local seq = log(session, inbox, id, type_, task, agent, attempt, trace, data)
redis.call('HSET', key('session', session), 'posted', id, 'posted_seq', seq)
redis.call('ZADD', key('sessions'), 'NX', STAMP, session) -- who only talks is looked at all the same
return seq
