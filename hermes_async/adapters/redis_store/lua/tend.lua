-- Let to the gate the tasks of this partition whose retry is due; returns {how many, READY}.
local due = redis.call('ZRANGEBYSCORE', key('due'), '-inf', NOW, 'LIMIT', 0, ARGV[5])
for _, id in ipairs(due) do
  redis.call('ZREM', key('due'), id)
  local task = facts(id)
  if task.status == 'queued' then enter(id, task) end
end
return {#due, READY}
