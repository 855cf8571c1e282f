"""salpipe: does knowing where to look help my network learn?"""
