-- What trees of tasks have consumed is kept in the record of the task whose limits bind the tree: it is forgotten
-- with it. A budget is five arguments from ARGV[i] on: that task, and the most requests, tool calls, tokens and
-- billionths of a dollar, each '' for any number.
local COUNTS = {'requests', 'tool_calls', 'input_tokens', 'output_tokens', 'cost'}
local BUDGET = 5

local function counted(id, kind)
  local fields = {}
  for i, name in ipairs(COUNTS) do fields[i] = kind .. name end
  return redis.call('HMGET', key('task', id), unpack(fields))
end

-- What the tree of each budget has consumed, from ARGV[first] on.
local function trees(first)
  local used = {}
  for i = first, #ARGV, BUDGET do used[#used + 1] = counted(ARGV[i], 'tree:') end
  return used
end

-- Whether a budget does not allow so many more requests and tool calls; domain/budget.py has the rule.
local function refuses(first, requests, tool_calls)
  for i = first, #ARGV, BUDGET do
    local used = counted(ARGV[i], 'tree:')
    for n = 1, 5 do used[n] = tonumber(used[n] or 0) end
    local function most(n) return tonumber(ARGV[i + n]) or math.huge end
    if used[1] + requests > most(1) or used[2] + tool_calls > most(2) or used[3] + used[4] >= most(3)
       or used[5] >= most(4) then
      return true
    end
  end
  return false
end
