"""The guide's appendix: its class, with the host and the credentials filled in.

Broken as printed: of its four addresses three are comments, to be swapped in by hand, and the
fourth, a deletion, is below a `requests.get` that would merely read. Here the argument
says which one, and the fourth deletes.
"""
import os
import sys

import requests

HOST, WHICH = os.environ['HOST'], int(sys.argv[1])


class conn_dockerregistry():
    def __init__(self):
        self.headers = {
        "User-Agent": "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/70.0.3538.110 Safari/537.36",
        "Authorization": "Basic " + os.environ['AUTH']}

    def get_images(self):
        url = [
            'https://' + HOST + '/v2/public/2048/tags/list',
            'https://' + HOST + '/v2/_catalog',
            'https://' + HOST + '/v2/10000460xxxxx/ubuntu/manifests/latest',
            'https://' + HOST + '/v2/10000460xxxxx/ubuntu/manifests/' + os.environ.get('DIGEST', ''),
        ][WHICH - 1]
        r = (requests.delete if WHICH == 4 else requests.get)(url=url,headers=self.headers)
        print(r.status_code,r.headers,r.text)

    def run(self):
        fd = conn_dockerregistry.get_images()


if __name__ == '__main__':
    conn_dockerregistry = conn_dockerregistry()
    conn_dockerregistry.run()
