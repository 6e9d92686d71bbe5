-- The broker has confirmed a task's message: the janitor need not care, unless a later attempt is due by now.
local id, attempt = unpack(ARGV)
local is = redis.call('HMGET', key('task', id), 'status', 'attempt')
if is[1] == 'queued' and is[2] == attempt then redis.call('ZREM', key('due'), id) end
return 0
