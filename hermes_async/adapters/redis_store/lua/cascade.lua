-- Ask tasks to stop, and with `below` all that are below them: the leaves first, so that nobody wakes up to find its
-- child cancelled. Returns those that run, and those that ended before they began. `due` are the kinds of callbacks
-- that a cancelled task makes due.
local function cascade(tree, below, data, due)
  local running, ended = {}, {}

  local function cancel(id)
    local task = key('task', id)
    local is = redis.call('HMGET', task, 'status', 'attempt', 'session', 'agent', 'trace', 'cancel_requested', 'created_at',
                          'has_deadline', 'wants', 'question_seq')
    if is[1] ~= 'queued' and is[1] ~= 'running' and is[1] ~= 'input_required' then return end
    local function write(word, inbox, what)
      local event_id = id .. ':' .. is[2] .. ':' .. word
      local seq = log(is[3], inbox, event_id, 'task.' .. word, id, is[4], is[2], is[5], what)
      redis.call('HSET', task, 'last', event_id, 'last_seq', seq)
      return seq
    end
    if is[6] ~= '1' then
      write('cancel_requested', '0', data)
      redis.call('HSET', task, 'cancel_requested', 1)
    end
    if is[1] ~= 'queued' then
      running[#running + 1] = id
      return
    end
    leave(id, facts(id))
    local seq = write('cancelled', '1', '{}')
    redis.call('HSET', task, 'status', 'cancelled', 'finished_at', NOW, 'error', '', 'reason', '', 'parcel', '')
    move(id, 'queued', 'cancelled', is[7])
    finish(id, 'queued', is[8], is[10])
    if is[9] then open_ledger().file(id, is[3], is[9], due, seq, true) end
    ended[#ended + 1] = id
  end

  local next_ = 1
  while below and tree[next_] do
    for _, child in ipairs(redis.call('LRANGE', key('children', tree[next_]), 0, -1)) do tree[#tree + 1] = child end
    next_ = next_ + 1
  end
  for i = #tree, 1, -1 do cancel(tree[i]) end
  return running, ended
end
