-- Put a dead row back into its line, or throw it away; returns 1, or 0 when there is no such dead row.
local cid, back = unpack(ARGV, 5)
local L = open_ledger()
local is = redis.call('HMGET', L.row(cid), 'dead', 'line', 'seq')
if not is[1] then return 0 end
redis.call('ZREM', L.key('dead'), cid)
if back == '1' then
  redis.call('HDEL', L.row(cid), 'dead', 'failures')
  L.stand(cid, is[2], is[3])
else
  L.forget(cid)
end
return 1
