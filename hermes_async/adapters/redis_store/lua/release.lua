-- Put a due task on the broker; returns 1 when the caller has to publish it.
local id, grace = unpack(ARGV)
local due = redis.call('ZSCORE', key('due'), id)
if not due or tonumber(due) > NOW then return 0 end
if redis.call('HGET', key('task', id), 'status') ~= 'queued' then
  redis.call('ZREM', key('due'), id)
  return 0
end
if send(id, 0) then return 0 end
redis.call('ZADD', key('due'), NOW + grace, id)
return 1
