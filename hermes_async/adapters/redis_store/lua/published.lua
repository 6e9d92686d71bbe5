-- The broker has confirmed the messages of these tasks.
for i = 5, #ARGV do redis.call('ZADD', gate('sent'), 'XX', NOW + RESEND, ARGV[i]) end
return 0
