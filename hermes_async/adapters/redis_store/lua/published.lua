-- The broker has confirmed the messages of these tasks; each is sent again after twice as long as before.
for i = 5, #ARGV do
  local times = redis.call('HGET', partition_of(ARGV[i]) .. 'task:' .. ARGV[i], 'sends') or 0
  redis.call('ZADD', gate('sent'), 'XX', NOW + RESEND * 2 ^ math.min(times, 10), ARGV[i])
end
return 0
