"""The question's program: a repository is created by the v1 index.

Broken as printed: `data` is a list of a dictionary, which requests refuses to send. It was
meant to be the JSON. The imports are not printed.
"""
import json
import os

import requests
from requests.auth import HTTPBasicAuth

username, password, new_repo_name = os.environ['USER'], os.environ['PASS'], 'question'

url = 'http://' + os.environ['HOST'] + '/v1/repositories/' + username + '/' + new_repo_name + '/'
header = {'content-type': 'application/json','Accept': 'application/json','X-Docker-Token': 'true'}
data = json.dumps([{"id": "1020903f808f"}])
auth=HTTPBasicAuth(username,password)
r = requests.put(url,headers=header, auth=auth,data=data)

print(r.status_code, r.headers, r.text)
assert (r.status_code, r.json()) == (200, ''), r.text
token = r.headers['X-Docker-Token']
assert token.endswith(',repository="%s/%s",access=write' % (username, new_repo_name)), token
assert r.headers['WWW-Authenticate'] == 'Token ' + token, r.headers
assert r.headers['X-Docker-Endpoints'] == os.environ['HOST'], r.headers
