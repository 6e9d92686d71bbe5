-- What was said in a session of late, to it or to its tasks: whoever has lost the reply says it again, and others may
-- have said something in between.

-- The seq under which a message was logged, if it was.
local function known(recent, id)
  local seq = redis.call('ZSCORE', recent, id)
  return seq and tonumber(seq)
end

-- Know a message, and forget the oldest beyond so many.
local function know(recent, id, seq, most)
  redis.call('ZADD', recent, seq, id)
  redis.call('ZREMRANGEBYRANK', recent, '0', -1 - most)
end
