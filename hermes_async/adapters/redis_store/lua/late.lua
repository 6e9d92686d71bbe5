-- Return members of a sorted set (leases, deadlines) whose time has come, oldest first.
return redis.call('ZRANGEBYSCORE', key(ARGV[5]), '-inf', NOW, 'LIMIT', 0, ARGV[6])
