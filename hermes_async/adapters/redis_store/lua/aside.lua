-- A running attempt gives back its place while it waits for its children; returns {1 if it is the attempt, READY}.
local id, attempt = unpack(ARGV, 5)
local is = redis.call('HMGET', key('task', id), 'status', 'attempt')
if is[1] ~= 'running' or is[2] ~= attempt then return {0, READY} end
leave(id, facts(id))
return {1, READY}
