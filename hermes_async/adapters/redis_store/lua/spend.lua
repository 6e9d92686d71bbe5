-- Count what an attempt has consumed, or asks for, on its record and for each budget of its task, the arguments from
-- the 17th on; returns {1, or 0 when it is refused, 1 if the attempt is running, the task's sums, those of each tree},
-- or nothing when the task is forgotten.
local id, attempt, ordinal, asks = unpack(ARGV, 5, 8)
local agent, model, most_fields = unpack(ARGV, 14, 16)
local task, receipt = key('task', id), 'spent:' .. attempt
local is = redis.call('HMGET', task, 'status', 'attempt', receipt)
if not is[1] then return false end
local ours = is[2] == attempt and (is[1] == 'running' or is[1] == 'input_required')

local function add(holder, kind)
  for i, name in ipairs(COUNTS) do
    if i == 1 or ARGV[8 + i] ~= '0' then redis.call('HINCRBY', holder, kind .. name, ARGV[8 + i]) end
  end
end

-- Among all that the agent has spent with the model; a new one has no field of its own once there are too many.
local function meter()
  for i, name in ipairs(COUNTS) do
    if ARGV[8 + i] ~= '0' then
      local field = 'spent ' .. name .. ' ' .. agent .. ' '
      local is_new = redis.call('HEXISTS', METRICS, field .. model) == 0
      local too_many = is_new and redis.call('HLEN', METRICS) >= tonumber(most_fields)
      redis.call('HINCRBY', METRICS, field .. (too_many and 'other' or model), ARGV[8 + i])
    end
  end
end

local granted = tonumber(is[3] or 0) >= tonumber(ordinal) -- the reply to this very call was lost
if not granted and not (asks == '1' and (not ours or refuses(17, ARGV[9], ARGV[10]))) then
  granted = true
  redis.call('HSET', task, receipt, ordinal)
  add(task, 'used:')
  meter()
  for i = 17, #ARGV, BUDGET do
    local holder = key('task', ARGV[i])
    if redis.call('EXISTS', holder) == 1 then add(holder, 'tree:') end
  end
end
return {granted and 1 or 0, ours and 1 or 0, counted(id, 'used:'), trees(17)}
