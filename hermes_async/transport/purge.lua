-- Deletes the entries of KEYS[1] that nobody has claimed yet: those after the last delivered id of group ARGV[1].
local last, deleted = '0-0', 0
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = {}
  for i = 1, #info, 2 do group[info[i]] = info[i + 1] end
  if group['name'] == ARGV[1] then last = group['last-delivered-id'] end
end
while true do
  local entries = redis.call('XRANGE', KEYS[1], '(' .. last, '+', 'COUNT', 1000)
  if #entries == 0 then return deleted end
  for _, entry in ipairs(entries) do redis.call('XDEL', KEYS[1], entry[1]) end
  deleted = deleted + #entries
end
