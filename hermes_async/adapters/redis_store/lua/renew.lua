-- Keep a worker's leases alive; returns {tasks that are its own, those of them that are to be cancelled}.
local worker, lease = ARGV[5], ARGV[6]
local held, cancelled = {}, {}
for i = 7, #ARGV do
  local id = ARGV[i]
  local is = redis.call('HMGET', key('task', id), 'worker', 'cancel_requested')
  if is[1] == worker and redis.call('ZSCORE', key('leases'), id) then
    redis.call('ZADD', key('leases'), NOW + lease, id)
    held[#held + 1] = id
    if is[2] == '1' then cancelled[#cancelled + 1] = id end
  end
end
return {held, cancelled}
