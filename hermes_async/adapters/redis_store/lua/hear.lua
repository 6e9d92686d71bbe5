-- Return {the messages beyond a seq}, of which this attempt has read those it gets for the first time, or nothing
-- when the attempt is over.
local id, attempt, after = unpack(ARGV, 5)
local task = key('task', id)
local was = redis.call('HMGET', task, 'status', 'attempt', 'session', 'agent', 'trace', 'heard', 'heard_now', 'unread')
if was[2] ~= attempt or (was[1] ~= 'running' and was[1] ~= 'input_required') then return false end
local found = redis.call('XRANGE', key('messages', id), '(' .. after, '+')
if not found[1] then return {found} end

local heard, unread = tonumber(was[6] or 0), tonumber(was[8] or 0)
local of_attempt, up_to = string.match(was[7] or '', '^(%d+):(%d+)$')
up_to = of_attempt == attempt and tonumber(up_to) or 0
for _, entry in ipairs(found) do
  local message = tonumber(string.match(entry[1], '^%d+'))
  if message > up_to then
    local event_id = id .. ':' .. attempt .. ':applied-' .. message
    local seq = log(was[3], '0', event_id, 'task.message_applied', id, was[4], attempt, was[5],
                    cjson.encode({message = message}))
    redis.call('HSET', task, 'last', event_id, 'last_seq', seq)
    up_to = message
  end
  if message > heard then heard, unread = message, unread - 1 end
end
redis.call('HSET', task, 'heard', heard, 'heard_now', attempt .. ':' .. up_to, 'unread', unread)
return {found}
