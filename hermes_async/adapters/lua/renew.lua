-- Keep a worker's leases alive; returns {tasks that are no longer its own, tasks to be cancelled}.
local worker, lease = ARGV[1], ARGV[2]
local lost, cancelled = {}, {}
for i = 3, #ARGV, 2 do
  local id, attempt = ARGV[i], ARGV[i + 1]
  local is = redis.call('HMGET', key('task', id), 'attempt', 'worker', 'cancel_requested')
  local held = redis.call('ZSCORE', key('leases'), id)
  if held and is[1] == attempt and is[2] == worker then
    redis.call('ZADD', key('leases'), NOW + lease, id)
    if is[3] == '1' then cancelled[#cancelled + 1] = id end
  else
    lost[#lost + 1] = id
  end
end
return {lost, cancelled}
