-- Send again what was sent long ago and never claimed, each time after twice as long; returns {how many, READY}.
local lost = redis.call('ZRANGEBYSCORE', gate('sent'), '-inf', NOW, 'LIMIT', 0, ARGV[5])
for _, id in ipairs(lost) do
  local task = facts(id)
  if task.status == 'queued' then
    local times = redis.call('HINCRBY', partition_of(id) .. 'task:' .. id, 'sends', 1)
    send(id, task)
    if task.parcel_key then index(gate('sent'), id, NOW + RESEND * 2 ^ math.min(times, 10)) end
  else
    index(gate('sent'), id, false)
  end
end
let_in() -- room may have come without anybody's leaving: a limit was raised
return {#lost, READY}
