-- Claims up to ARGV[3] new entries, KEYS being in order of priority; ARGV[3 + i] is the life of KEYS[i] in ms, or 0.
-- A missing stream or group (first use, FLUSHALL, failover) is made on the way.
local claimed, credit = {}, tonumber(ARGV[3])

local function read(key)
  return redis.pcall('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', credit, 'STREAMS', key, '>')
end

for i, key in ipairs(KEYS) do
  if credit <= 0 then break end
  local reply = read(key)
  if reply and reply.err then
    if not string.find(reply.err, 'NOGROUP', 1, true) then return reply end
    redis.call('XGROUP', 'CREATE', key, ARGV[1], '0', 'MKSTREAM')
    reply = read(key)
  end
  if ARGV[3 + i] ~= '0' then redis.call('PEXPIRE', key, ARGV[3 + i]) end
  for _, entry in ipairs(reply and reply[1][2] or {}) do
    claimed[#claimed + 1] = {key, entry[1], entry[2]}
    credit = credit - 1
  end
end
return claimed
