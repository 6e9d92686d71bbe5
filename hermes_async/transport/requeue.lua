-- Puts claimed entries of KEYS[1] back at its end, or on KEYS[2] once they have failed ARGV[2] times.
-- ARGV: group, deliveries allowed, 1 if this delivery counts as failed else 0, length kept of KEYS[2], then what
-- XPENDING takes to choose the entries. An entry that is no longer pending belongs to somebody else: it is left alone.
-- Returns how many entries were moved, and how many of them to KEYS[2].
local stream, dead, group = KEYS[1], KEYS[2], ARGV[1]
local allowed, failed, kept, buried = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], 0

local function move(id, fields)
  local text, failures = false, 0
  for i = 1, #fields, 2 do
    if fields[i] == 'm' then text = fields[i + 1] end
    if fields[i] == 'n' then failures = tonumber(fields[i + 1]) end
  end
  failures = failures + failed
  if failed == 1 and failures >= allowed then
    buried = buried + 1
    redis.call('XADD', dead, 'MAXLEN', '~', kept, '*', 'm', text or '', 'n', failures)
  else
    redis.call('XADD', stream, '*', 'm', text or '', 'n', failures)
  end
end

local chosen = redis.pcall('XPENDING', stream, group, unpack(ARGV, 5))
if chosen.err then
  if string.find(chosen.err, 'NOGROUP', 1, true) then return {0, 0} end -- the stream is gone, and the entries with it
  return chosen
end
for _, pending in ipairs(chosen) do
  local entry = redis.call('XRANGE', stream, pending[1], pending[1])[1]
  if entry then move(pending[1], entry[2]) end
  redis.call('XACK', stream, group, pending[1])
  redis.call('XDEL', stream, pending[1])
end
return {#chosen, buried}
