-- Return members of a sorted set (leases, due) whose time has come, oldest first.
return redis.call('ZRANGEBYSCORE', key(ARGV[1]), '-inf', NOW, 'LIMIT', 0, ARGV[2])
