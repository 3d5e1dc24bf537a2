-- A reservation as one would write it for nginx + Lua + Redis: one EVALSHA of reserve_one.lua
-- over a pool of kept connections. Believes the buyer's name in X-User: it checks no token.
local redis = require "nginx.redis"
local var, req, match, format = ngx.var, ngx.req, string.match, string.format

local M = {}
local options  -- what the runner says: socket, pool, sha (of reserve_one.lua, which it has loaded)

function M.configure(given) options = given end

local function refuse(status, code)
  ngx.status = status
  ngx.print('{"code":"', code, '"}')
end

local function ask_redis(sale, user, id, items)
  local client = redis:new()
  client:set_timeout(5000)
  local ok, problem = client:connect(options.socket)
  if not ok then return nil, problem end
  local tag = "sale:{" .. sale .. ".0}:"
  local reply, failed = client:evalsha(options.sha, 4,
    tag .. "config", tag .. "stock", tag .. "buyers", tag .. "orders",
    1, format("%d", ngx.now() * 1000), user, id, items)
  if not reply then return nil, failed end
  client:set_keepalive(60000, options.pool)
  return reply
end

function M.reserve()
  local sale, user, key = var.sale, var.http_x_user, var.http_idempotency_key
  req.read_body()
  -- A pattern in place of a JSON parser: less work than ours, in the peer's favour.
  local sku, quantity = match(req.get_body_data() or "", '"sku":"([^"]+)","quantity":(%d+)')
  if not (user and key and sku) then return refuse(400, "invalid_request") end
  local id = string.sub(ngx.md5(user .. "/" .. key), 1, 20)
  local reply, problem = ask_redis(sale, user, id, sku .. "*" .. quantity)
  if not reply then
    ngx.log(ngx.ERR, problem)
    return refuse(503, "unavailable")
  end
  local outcome = reply[2]
  local replayed = string.sub(outcome, 1, 9) == "DUPLICATE"
  if outcome ~= "RESERVED" and not replayed then return refuse(409, outcome) end
  ngx.status = replayed and 200 or 201
  ngx.header["Location"] = "/v1/reservations/" .. sale .. "." .. id
  ngx.print('{"reservation_id":"', sale, ".", id, '","sale_id":"', sale,
    '","items":[{"sku":"', sku, '","quantity":', quantity, '}],"status":"reserved","reserved_until":"',
    os.date("!%Y-%m-%dT%H:%M:%SZ", tonumber(reply[1])), '"}')
end

return M
